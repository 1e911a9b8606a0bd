"""The HTTP service: a web page and an API for trained runs, in several processes."""
