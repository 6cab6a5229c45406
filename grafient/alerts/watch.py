"""That a workspace is to be looked at again."""

from __future__ import annotations

from sqlalchemy import update

from grafient.extensions import db
from grafient.models import AlertWatch, utc_now


def look_again(workspace_id: int) -> None:
    """Have a workspace looked at with the next tick or wake-up, and whoever looks at it now begin anew. Does not
    commit; wake a worker after the commit."""
    mine = update(AlertWatch).where(AlertWatch.workspace_id == workspace_id)
    again = mine.values(next_at=utc_now(), turn=AlertWatch.turn + 1)
    db.session.execute(again.execution_options(synchronize_session=False))
