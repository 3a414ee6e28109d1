"""The pulsar twin: from a telescope's file to labelled time-frequency frames and confirmed pulses.

`preprocess` cuts an observation into frames, `classify` labels them and confirms pulses, `synthesise` is the physics
twin that makes observations whose truth is known, `train` makes a version of the classifier, and `validate` decides by
the gate whether it may serve.
"""
