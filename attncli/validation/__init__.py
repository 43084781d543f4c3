"""Validate what a reader or a caller hands over. Entry: `validate`."""

from attncli.validation.problem import ProblemSize, problem_size, suggest_layout, validate

__all__ = ["ProblemSize", "problem_size", "suggest_layout", "validate"]
