"""What was trained behind HTTP: a web page and an API, with processes of their own for decoding and predicting."""
