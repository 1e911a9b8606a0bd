"""What was trained, put to use: prediction on new images, export to other runtimes."""
