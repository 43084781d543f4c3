"""Plan a computation: a problem and a variant brought together, and all that can be refused before torch is loaded.

`make_plan` says what will be computed: which steps, on which axes, with which positions, heads and seeds. It raises
where problem and variant do not go together, and the core follows the plan without checking again.
"""

from attncli.plan.build import finish_plan, make_plan, outline_plan
from attncli.plan.plan import Plan, SharedPlan

__all__ = ["Plan", "SharedPlan", "finish_plan", "make_plan", "outline_plan"]
