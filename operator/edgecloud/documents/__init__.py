"""YAML files as people write them, read within bounds, with the line of every value."""

from edgecloud.documents.builder import MAX_NODES
from edgecloud.documents.document import Document
from edgecloud.documents.reader import MAX_DOCUMENTS, read_documents
from edgecloud.documents.scalars import MAX_DIGITS
from edgecloud.documents.syntax import MAX_DEPTH
from edgecloud.documents.text import MAX_BYTES, too_large

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_DOCUMENTS",
    "MAX_NODES",
    "Document",
    "read_documents",
    "too_large",
]
