"""``eventd deploy-demo``: the demonstration, through the FC API like anybody's functions."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from eventd.cli.client import ADMIN, API, Client, connect, data_directory, function_path
from eventd.cli.failure import Refused
from eventd.cli.options import DataOption, EndpointOption, JsonOption
from eventd.demo.plan import (
    BUCKET,
    LOG_DIRECTORY,
    SERVICE,
    TOPIC,
    PlannedFunction,
    functions,
    package,
)

_CONSTANT = {"serviceName", "functionName", "triggerName", "triggerType", "sourceArn"}
"""Keys that name a resource or what it is: an update does not take them."""


def deploy_demo(
    kafka: Annotated[
        str,
        typer.Option(
            "--kafka",
            metavar="HOST:PORT,...",
            envvar="EVENTD_KAFKA",
            help="Bootstrap servers for the function that reads a topic. [without it]",
        ),
    ] = "",
    as_json: JsonOption = False,
    endpoint: EndpointOption = None,
    data: DataOption = None,
) -> None:
    """Create or update the service "demo".

    Five functions, one per kind of source. It may be repeated; what is there is brought to the
    current state. The bucket and the log directory are made below the daemon's data directory
    (--data).

    Examples:

      eventd deploy-demo

      eventd deploy-demo --kafka 127.0.0.1:19092
    """
    client = connect(endpoint, data)
    directory = data_directory(data)
    about = client.json("GET", f"{ADMIN}/status")
    for folder in (directory / "buckets" / BUCKET, directory / LOG_DIRECTORY):
        folder.mkdir(parents=True, exist_ok=True)
    done = [("service", SERVICE, _put_service(client))]
    code = {"zipFile": package()}
    planned = functions(
        data=directory, region=about["region"], account_id=about["accountId"], kafka=kafka
    )
    for function in planned:
        done.extend(_put_function(client, function, code))
    if as_json:
        print(json.dumps([{"kind": kind, "name": name, "did": did} for kind, name, did in done]))
        return
    for kind, name, did in done:
        print(f"{did} {kind} {name}")
    print(what_to_try(client.endpoint, directory, kafka))


def what_to_try(endpoint: str, data: Path, kafka: str) -> str:
    """The commands that make each function run, ready to be pasted."""
    bucket = shlex.quote(str(data / "buckets" / BUCKET))
    log = shlex.quote(str(data / LOG_DIRECTORY / "app.log"))
    url = f"{endpoint}{API}/proxy/{SERVICE}/hello/"
    command = own_name()
    option = "" if data == data_directory(None) else f" --data {shlex.quote(str(data))}"
    lines = [
        "",
        "Try it:",
        f"  the API               {endpoint}",
        f"  call a URL            curl '{url}?name=you'",
        f"  drop a picture        cp PICTURE {bucket}/",
        f"  write a log line      echo 'ERROR disk is warm' >> {log}",
    ]
    if kafka:
        servers = shlex.quote(kafka)
        lines.append(
            f"  publish a message     {command} publish {TOPIC} '{{\"orderId\": 7}}' "
            f"--bootstrap-servers {servers}"
        )
    else:
        lines.append(f"  with Kafka, too       {command} deploy-demo{option} --kafka HOST:PORT")
    lines += [
        f"  see what they print   {command} logs{option} --follow",
        f"  see what runs         {command} status{option} --watch",
    ]
    return "\n".join(lines)


def own_name() -> str:
    """How this program is called from the shell: ``eventd`` if it is found, else its path."""
    if shutil.which("eventd"):
        return "eventd"
    script = Path(sys.executable).parent / "eventd"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)


def _put_service(client: Client) -> str:
    body = {"serviceName": SERVICE, "description": "the demonstration of eventd"}
    return _put(client, f"{API}/services", SERVICE, body)


def _put_function(
    client: Client, planned: PlannedFunction, code: dict[str, str]
) -> list[tuple[str, str, str]]:
    base = f"{API}/services/{SERVICE}/functions"
    name = f"{SERVICE}/{planned.name}"
    done = [("function", name, _put(client, base, planned.name, {**planned.body, "code": code}))]
    triggers = f"{function_path(SERVICE, planned.name)}/triggers"
    for body in planned.triggers:
        trigger = str(body["triggerName"])
        done.append(("trigger", f"{name}/{trigger}", _put(client, triggers, trigger, body)))
    return done


def _put(client: Client, collection: str, name: str, body: dict[str, Any]) -> str:
    """Update the resource, or create it if it is missing. Says which."""
    changes = {key: value for key, value in body.items() if key not in _CONSTANT}
    try:
        client.json("PUT", f"{collection}/{quote(name, safe='')}", changes)
    except Refused as error:
        if error.status != 404:
            raise
    else:
        return "updated"
    client.json("POST", collection, body)
    return "created"
