"""The document as Markdown, for people: ``python -m foreman.web.openapi.page > docs/api.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from foreman.web.openapi.document import document
from foreman.web.openapi.responses import title

_INTRODUCTION = """\
# The routes of foreman

Generated from `/openapi.json`, the same reference for programs (OpenAPI 3.1), by `python -m foreman.web.openapi.page`.
[Jobs](jobs.md) explains jobs and how to work with them; [Monitoring](watching.md) explains `/queue` and `/healthz`.
"""
_METHODS = ("get", "post", "put", "delete")


def page() -> str:
    """The page, as Markdown."""
    spec = document()
    return "\n".join([_INTRODUCTION, *_lines(spec)])


def _lines(spec: Mapping[str, Any]) -> Iterator[str]:
    answers = spec["components"]["responses"]
    yield f"{spec['info']['description'].strip()}\n"
    yield "## Tokens\n"
    for scheme in spec["components"]["securitySchemes"].values():
        yield f"- {scheme['description']}"
    yield "\n## Errors of every route\n"
    yield "| status | when | headers |\n|---|---|---|"
    for name, answer in answers.items():
        if name.startswith("Problem"):
            yield _answer(name.removeprefix("Problem"), answer)
    for tag in spec["tags"]:
        yield f"\n## Routes: {tag['name']}\n\n{tag['description']}"
        for path, item in spec["paths"].items():
            for method in _METHODS:
                if method in item and tag["name"] in item[method]["tags"]:
                    yield from _operation(method, path, item)
    yield "\n## Schemas"
    for name, schema in spec["components"]["schemas"].items():
        yield from _schema(name, schema)


def _operation(method: str, path: str, item: Mapping[str, Any]) -> Iterator[str]:
    operation = item[method]
    yield f"\n### {method.upper()} {path}\n\n{operation['summary']}"
    notes = [operation.get("description", "")]
    if method == "get":
        notes.append("HEAD is answered with the headers alone.")
    if operation.get("security") == []:
        notes.append("No token is required.")
    if text := " ".join(filter(None, notes)):
        yield f"\n{text}"
    parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
    if parameters:
        yield "\n| parameter | in | type | |\n|---|---|---|---|"
        for param in parameters:
            required = ", required" if param.get("required") else ""
            yield f"| `{param['name']}` | {param['in']}{required} | {_cell(_kind(param['schema']))} | {_cell(param['description'])} |"
    if "requestBody" in operation:
        body = operation["requestBody"]
        yield f"\nThe body: {_content(body)}. {body['description']}"
    yield "\n| status | when | body | headers |\n|---|---|---|---|"
    for status, answer in operation["responses"].items():
        if "$ref" not in answer:
            yield _answer(status, answer, _content(answer))


def _answer(status: str, answer: Mapping[str, Any], content: str | None = None) -> str:
    headers = ", ".join(f"`{name}`" for name in answer.get("headers", {}))
    body = "" if content is None else f" {_cell(content)} |"
    return f"| {status} {title(int(status))} | {_cell(answer['description'])} |{body} {headers} |"


def _content(holder: Mapping[str, Any]) -> str:
    """The schema of a body, and its media types."""
    kinds: dict[str, list[str]] = {}
    for media, content in holder.get("content", {}).items():
        kinds.setdefault(_kind(content["schema"]), []).append(f"`{media}`")
    return "; ".join(f"{kind} ({', '.join(media)})" for kind, media in kinds.items())


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### {name}\n\n{schema.get('description', '')}"
    if "properties" in schema:
        yield from _members(schema)
        for member, kind in schema["properties"].items():
            inner = kind.get("items", kind)
            if "properties" in inner and inner.get("required") != ["model"]:
                yield f"\nEach of `{member}`:" if "items" in kind else f"\n`{member}`:"
                yield from _members(inner)
    elif "items" in schema:
        yield f"\n{_kind(schema)}"
    for example in schema.get("examples", ()):
        yield f"\n```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```"


def _members(schema: Mapping[str, Any]) -> Iterator[str]:
    yield "\n| member | type | |\n|---|---|---|"
    for member, kind in schema["properties"].items():
        missing = "" if member in schema["required"] else ", optional"
        yield f"| `{member}` | {_cell(_kind(kind))}{missing} | {_cell(kind.get('description', ''))} |"


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of a value, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for either in ("oneOf", "anyOf"):
        if either in schema:
            return " or ".join(_kind(choice) for choice in schema[either])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "type" not in schema:
        return (
            schema["description"].rstrip(".").lower() if schema.get("description", "").startswith("Bytes") else "lines"
        )
    types = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
    if "items" in schema:
        types[0] = f"array of {_kind(schema['items'])}"
    return " or ".join(types) + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    if schema.get("format") == "date-time":
        return " (timestamp)"
    for least, most, what in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ):
        if most in schema:
            return f", {schema.get(least, 0):g} to {schema[most]:g}{what}"
    if "minimum" in schema:
        return f", {schema['minimum']:g} or more"
    return ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(page() + "\n")
