"""What T passes say, learned: a small head on the trained network answers in one pass.

Its job: keep what masked passes said of rows, teach a head from it, say how far the two agree on
rows that it has not learned from, and answer. The network itself never changes.

trunk        what the head reads: what goes into the last linear map, and what comes out
made         copies of rows, mixed and noisy to learn from, otherwise corrupted to be judged on
lessons      what the passes said of some rows
student      the head: a graph of allowed operators, its numbers, how strange a row is to it
losses       how far what a head says is from what the passes said
teaching     from lessons to a head
certificate  how far the two agree, on held-out rows and on corrupted copies
students     the heads of one network on a device

Source: Gurau, Bewley, Posner 2018, Dropout distillation for efficiently estimating model
confidence, arXiv:1809.10562; Shen et al. 2021, Real-time uncertainty estimation in computer vision
via uncertainty-aware distribution distillation, arXiv:2007.15857.
"""

from dubito.engine.distilled.certificate import Certificate, certify
from dubito.engine.distilled.lessons import Lessons
from dubito.engine.distilled.made import Made
from dubito.engine.distilled.student import Student
from dubito.engine.distilled.students import Students
from dubito.engine.distilled.teaching import teach
from dubito.engine.distilled.trunk import Trunk

__all__ = ["Certificate", "Lessons", "Made", "Student", "Students", "Trunk", "certify", "teach"]
