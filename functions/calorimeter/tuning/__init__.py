"""What `tune` needs: the space that it searches, the study that it keeps, and the trials."""
