"""``eventd serve``: the daemon itself."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from eventd.cli.failure import Failure
from eventd.settings import load


def serve(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What must survive lives here. [./data]")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Address of the API. [127.0.0.1:9980]"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="EVENTD_CONFIG", help="Settings in TOML."),
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="NAME", help="Shown in ARNs and payloads. [cn-local]")
    ] = None,
    account_id: Annotated[
        str | None, typer.Option(metavar="DIGITS", help="Shown in ARNs. [made up once and kept]")
    ] = None,
    insecure_http: Annotated[
        bool | None,
        typer.Option("--insecure-http", help="Allow a listener off loopback without TLS."),
    ] = None,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="PEM file with the certificate chain.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="PEM file with the private key.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning, error. [info]")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORM", help="auto, human or json. [auto]")
    ] = None,
    drain_s: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time for running requests after SIGTERM. [30]"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; may be repeated."),
    ] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    The first start writes an access key into DIR/access-key. Every directory below DIR/buckets is
    a bucket. Settings come from FILE, then EVENTD_* variables, then these flags; "eventd settings"
    lists them all.

    Examples:

      eventd serve --data data

      eventd serve --data /srv/eventd --listen 127.0.0.1:9000 --config eventd.toml

      eventd serve --data data --set pool.max_instances=20
    """
    flags: dict[str, Any] = {
        "server.data": data,
        "server.listen": listen,
        "server.region": region,
        "server.account_id": account_id,
        "server.insecure_http": insecure_http,
        "server.tls_cert": tls_cert,
        "server.tls_key": tls_key,
        "server.log_level": log_level,
        "server.log_format": log_format,
        "server.drain_s": drain_s,
    }
    for given in set_ or ():
        key, equals, value = given.partition("=")
        if not equals:
            raise Failure(f"--set: expected KEY=VALUE, got {given!r}")
        flags[key] = value
    settings = load(config, os.environ, flags)
    daemon = importlib.import_module(
        "eventd.daemon"
    )  # the whole daemon: only this command needs it
    raise typer.Exit(daemon.run(settings))
