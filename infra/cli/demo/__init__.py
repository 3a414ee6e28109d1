"""`demo`: an observation goes into a bucket; labelled frames, a summary and a picture come out."""
