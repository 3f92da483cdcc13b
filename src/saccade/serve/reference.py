"""The page at ``/docs``: the OpenAPI description as HTML, without scripts and without files of other servers."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STATUSES = {
    "200": "the answer",
    "400": "the body is malformed",
    "401": "the key is missing or wrong",
    "404": "this model cannot do that",
    "408": "the request was received too slowly",
    "413": "too many bytes, images or pixels",
    "415": "another content type is needed",
    "422": "an image cannot be read",
    "503": "too busy, or not ready: try again after the seconds of Retry-After",
}


def reference_page(schema: dict[str, Any]) -> str:
    """Return the page for an OpenAPI description."""
    sections = [
        _section(path, method, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(schema["info"]["title"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="/static/reference.css">
</head>
<body>
<h1>{title}</h1>
<p>Version {escape(schema["info"]["version"])}. The same as <a href="/openapi.json">OpenAPI</a>.
If the server has a key, send it as a header: <code>Authorization: Bearer KEY</code>.</p>
<p>Errors have this form: <code>{{"error": {{"code": "…", "message": "…", "file": null}}}}</code></p>
{"".join(sections)}
</body>
</html>
"""


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    types = operation.get("requestBody", {}).get("content", {})
    shapes = {each: _shape(body.get("schema", {})) for each, body in types.items()}
    given = "".join(f"<li><code>{escape(each)}</code>: {escape(shape)}</li>" for each, shape in shapes.items())
    rows = "".join(
        f"<tr><th scope='row'>{status}</th><td>{escape(_STATUSES.get(status, answer['description']))}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    )
    command = "curl " + ("-F files=@photo.jpg " if types else "") + f"http://127.0.0.1:8000{path}"
    return f"""<section>
<h2><code>{method.upper()} {escape(path)}</code></h2>
<p>{escape(operation.get("description", ""))}</p>
{f"<p>Body:</p><ul>{given}</ul>" if given else ""}
<pre><code>{escape(command)}</code></pre>
<table><thead><tr><th scope="col">Status</th><th scope="col">Meaning</th></tr></thead><tbody>{rows}</tbody></table>
</section>
"""


def _shape(schema: dict[str, Any]) -> str:
    """Return a schema in a few words."""
    if "properties" in schema:
        return json.dumps({name: _shape(each) for name, each in schema["properties"].items()})
    if schema.get("type") == "array":
        return f"list of {_shape(schema['items'])}"
    return "file" if schema.get("format") == "binary" else schema.get("type", "value")
