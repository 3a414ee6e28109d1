"""How good a model is, and whether it may serve: metrics, bootstrap intervals, gates, leaks, reports.

A twin scores its models on the same samples, one row of scores a sample, and declares a `Gate`; `judge` compares the
candidate with the limits and with the model that serves, and says why. Only validation imports what is here.
"""

from layers.quality.gate import Gate, Rule, judge
from layers.quality.leak import leak
from layers.quality.metric import Metric, mean
from layers.quality.verdict import Reason, Verdict

__all__ = ["Gate", "Metric", "Reason", "Rule", "Verdict", "judge", "leak", "mean"]
