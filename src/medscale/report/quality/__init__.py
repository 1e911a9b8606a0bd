"""The chapter quality."""
