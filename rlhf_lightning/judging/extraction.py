"""The program in a response, and the single assertions of a test."""

from __future__ import annotations

import ast
import re

FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
IMPORT = re.compile(r"^(?:import [\w., ]+|from [\w.]+ import [\w*, ]+)$", re.MULTILINE)


def extract_program(prompt: str, response: str) -> tuple[str, bool]:
    """The source of a response's program, and whether it continues the prompt.

    The last fenced block (``` or ~~~, with any language; at the end of a response also an open one) is the program, behind the prompt's
    import lines. Without a block the response continues the prompt, as HumanEval has it.
    """
    blocks = FENCE.findall(response)
    if not blocks:
        return prompt + response, True
    imports = "".join(f"{line}\n" for line in IMPORT.findall(prompt))
    return imports + blocks[-1][1], False


def split_test(source: str) -> list[str]:
    """Split check(candidate) into tests of one assertion each; what can't be split stays as it is."""
    try:
        module = ast.parse(source)
    except SyntaxError:
        return [source]
    check = next((node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    assertions = [] if check is None else [node for node in check.body if isinstance(node, ast.Assert)]
    if check is None or len(assertions) < 2:
        return [source]
    body, tests = check.body, []
    for assertion in assertions:
        check.body = [node for node in body if node is assertion or not isinstance(node, ast.Assert)]
        tests.append(ast.unparse(module))
    return tests
