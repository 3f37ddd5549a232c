"""`mailbus check`: each thing that settings name, with what works and what does not."""

from rich.console import Console
from rich.text import Text

from service.check import NATS, Finding, check
from service.errors import EX_CONFIG, EX_FAILURE, EX_OK, Permanent
from service.settings import Settings


async def show_check(settings: Settings) -> int:
    """Print the findings as they come; 0 where everything works, 78 where NATS cannot serve before it is mended."""
    console = Console(soft_wrap=True, highlight=False)
    console.print("settings: valid", style="green")

    code = EX_OK

    def report(finding: Finding) -> None:
        nonlocal code
        if finding.error is not None:
            drifted = finding.what == NATS and isinstance(finding.error, Permanent)
            code = EX_CONFIG if drifted else code or EX_FAILURE
        mark = ("✗ ", "red") if finding.error else ("✓ ", "green")
        console.print(Text.assemble(mark, f"{finding.what}: {finding.error or finding.detail}"))

    await check(settings, report)
    return code
