"""What a kubelet makes of $(NAME) in the command, the arguments and the variables of a container."""

from __future__ import annotations

import re
from collections.abc import Mapping


def expanded(text: str, known: Mapping[str, str]) -> str:
    """$(NAME) is the variable's value if there is one, and else stays; $$ is $; every other $ is itself."""

    def put(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else known.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", put, text)
