"""Dies of a real SIGSEGV: it reads from address 0."""

import ctypes

ctypes.string_at(0)
