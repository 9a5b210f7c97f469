"""An HTTP function: a page for browsers, a line of text for everybody else."""

from html import escape
from urllib.parse import parse_qs

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Hello</title>
<body style="font: 1.2rem system-ui; margin: 4rem auto; max-width: 32rem">
<h1>Hello, {name}!</h1>
<p>This page was made by <code>demo/hello</code>.</p>
</body>
"""


def handler(environ, start_response):
    name = parse_qs(environ.get("QUERY_STRING", "")).get("name", ["world"])[0]
    print(f"greeting {name}")
    if "text/html" in environ.get("HTTP_ACCEPT", ""):
        kind, text = "text/html; charset=utf-8", PAGE.format(name=escape(name))
    else:
        kind, text = "text/plain; charset=utf-8", f"Hello, {name}!\n"
    start_response("200 OK", [("Content-Type", kind)])
    return [text.encode()]
