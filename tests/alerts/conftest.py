"""What tests of alerts have alike."""

from tests.alerts.stand_ins import internet, vouched

__all__ = ["internet", "vouched"]
