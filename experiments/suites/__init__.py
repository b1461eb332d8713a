"""Evaluation: suites of questions with gold answers, asked of a model in one teacher-forced pass each."""

from .build import Suite, build_suites, load_questions
from .evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "Suite", "build_suites", "evaluate", "load_questions"]
