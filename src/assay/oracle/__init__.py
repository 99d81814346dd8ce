"""What may be asked of the model, and the referee who judges every answer.

An attack proposes moves for a large logical batch. The oracle sends the rows that still matter to the model, packed
into full micro-batches, scatters the answers back, counts, and judges each move that it was asked about: is it inside
the threat, does the output reach the goal, is it smaller than the best so far. Results are read from its record.
"""

from assay.oracle.access import Access, granted_access, is_stochastic, rejected_output
from assay.oracle.oracle import Oracle
from assay.oracle.record import Record
from assay.oracle.view import View

__all__ = ["Access", "Oracle", "Record", "View", "granted_access", "is_stochastic", "rejected_output"]
