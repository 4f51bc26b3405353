"""What a free-text answer says: the option it picks, or the quantity it states."""

from spatial_lightning.evaluation.choices import extract_choice
from spatial_lightning.evaluation.quantities import Quantity, parse_quantity
from spatial_lightning.evaluation.text import final_answer

__all__ = ["Quantity", "extract_choice", "final_answer", "parse_quantity"]
