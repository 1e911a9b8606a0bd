"""The chapter external: trained runs on images of another origin."""
