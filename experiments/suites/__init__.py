"""Evaluation: suites of questions with gold answers, asked of a model in one teacher-forced pass each."""
