"""The chapter quality: how far a study's results can be trusted."""
