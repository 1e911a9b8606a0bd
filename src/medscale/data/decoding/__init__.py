"""Decoders of image files, one module a family of formats; ``medscale.data.images`` chooses."""
