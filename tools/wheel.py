"""What a wheel holds beside the sources: the compiled modules where tools/compile.py made some. Run by hatchling."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledModules(BuildHookInterface[Any]):
    """With compiled modules a wheel is for one Python on one kind of machine; without, for all."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling's documentation of build hooks."""
        root = Path(self.root)
        modules = [*root.glob("mailbus__mypyc*.so"), *root.glob("service/**/*.so")]
        if version == "editable" or not modules:
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for module in modules:
            name = str(module.relative_to(root))
            build_data["force_include"][name] = name
