"""What `train` needs beside a learner: data and their split, the score, curves, weights, and the loop itself."""
