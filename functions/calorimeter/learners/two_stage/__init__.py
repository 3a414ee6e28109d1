"""The model that serves: what a shower is as a whole by conditional flow matching, then its cells, layer by layer."""

from functions.calorimeter.learners.two_stage.learner import Learner, Parameters, build, make

__all__ = ["Learner", "Parameters", "build", "make"]
