"""The chapter gradcam: which parts of an image speak for the predicted class."""
