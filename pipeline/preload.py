"""What the process imports that ranks are forked from: all that a rank needs."""

from pipeline.started_rank import end_with_parent

end_with_parent()  # also while it is still importing, which takes seconds

import pipeline.train  # noqa: E402, F401
