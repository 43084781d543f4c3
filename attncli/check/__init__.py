"""Are these figures right? Claims are compared with the reference, step by step; whether that could fail; what they are instead.

    prepare   problem × variant × figures → task: everything that can be refused is refused, without torch
    settle    task → verdict
    check     both at once

The reference is the problem computed in float64 from its inputs as stored. Faults are small edits of the problem, the
variant or the plan; the algebra knows nothing of them.
"""

from attncli.check.figures import Figures
from attncli.check.task import CheckTask, prepare
from attncli.check.verdicts import check, settle
from attncli.verdict import Verdict

__all__ = ["CheckTask", "Figures", "Verdict", "check", "prepare", "settle"]
