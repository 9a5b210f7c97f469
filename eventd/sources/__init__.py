"""Triggers at work: their rules are in force, their sources run, each shows how it is."""

from eventd.sources.ports import Intake, Ports, ProgressStore, RuleRegistry
from eventd.sources.table import Sources, TriggerStatus
from eventd.sources.typed import typed_trigger

__all__ = [
    "Intake",
    "Ports",
    "ProgressStore",
    "RuleRegistry",
    "Sources",
    "TriggerStatus",
    "typed_trigger",
]
