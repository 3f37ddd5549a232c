"""`mailbus check`: each thing that settings name, with what works and what does not."""

from rich.console import Console
from rich.text import Text

from service.app import EX_FAILURE
from service.check import Finding, check
from service.settings import Settings


async def show_check(settings: Settings) -> int:
    """Print the findings as they come; 0 where everything works."""
    console = Console(soft_wrap=True, highlight=False)
    console.print("settings: valid", style="green")

    def report(finding: Finding) -> None:
        mark = ("✗ ", "red") if finding.error else ("✓ ", "green")
        console.print(Text.assemble(mark, f"{finding.what}: {finding.error or finding.detail}"))

    return 0 if await check(settings, report) else EX_FAILURE
