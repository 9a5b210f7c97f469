"""Request bodies: key folding, defaults, and refusals in FC's words."""

from __future__ import annotations

from typing import Any

import pytest

from eventd.api.schemas.alias import CreateAlias, UpdateAlias
from eventd.api.schemas.async_config import PutAsyncConfig
from eventd.api.schemas.fields import FcObject, parse
from eventd.api.schemas.function import CreateFunction, UpdateFunction, check_together
from eventd.api.schemas.service import CreateService, UpdateService
from eventd.api.schemas.trigger import CreateTrigger
from eventd.api.triggers import merged
from eventd.errors import InvalidArgument
from eventd.model.fold import fold

FUNCTION = {
    "functionName": "hello",
    "runtime": "python3",
    "handler": "index.handler",
    "code": {"zipFile": "UEs="},
}


def refusal(model: type[FcObject], content: dict[str, Any]) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        parse(model, content)
    return caught.value


def test_keys_are_read_in_any_case_and_null_is_absent() -> None:
    body = parse(
        CreateService,
        {
            "ServiceName": "s",
            "DESCRIPTION": None,
            "vpcconfig": {"vpcId": "v", "vswitchIds": ["w"], "SecurityGroupID": "g", "role": None},
        },
    )

    assert body.service_name == "s"
    assert body.config()["description"] == ""
    assert body.config()["vpcConfig"] == {
        "vpcId": "v",
        "vSwitchIds": ["w"],
        "securityGroupId": "g",
        "role": "",
    }


def test_an_exact_spelling_wins_over_another_one() -> None:
    assert fold(CreateService, {"serviceName": "exact", "servicename": "other"}) == {
        "serviceName": "exact"
    }
    assert fold(CreateService, {"servicename": "other", "serviceName": "exact"}) == {
        "serviceName": "exact"
    }


def test_keys_of_free_maps_stay_as_they_are() -> None:
    body = parse(CreateFunction, {**FUNCTION, "EnvironmentVariables": {"Handler": "a", "x": "b"}})

    assert body.config()["environmentVariables"] == {"Handler": "a", "x": "b"}


def test_unknown_keys_are_reported_by_their_path() -> None:
    seen: list[str] = []

    parse(CreateService, {"serviceName": "s", "vpcBinding": 1, "logConfig": {"x": 1}}, seen.append)

    assert seen == ["vpcBinding", "logConfig.x"]


def test_a_service_without_anything_has_every_default() -> None:
    assert parse(CreateService, {"serviceName": "s"}).config() == {
        "description": "",
        "role": "",
        "internetAccess": True,
        "logConfig": {
            "project": "",
            "logstore": "",
            "enableRequestMetrics": False,
            "enableInstanceMetrics": False,
        },
        "vpcConfig": {"vpcId": "", "vSwitchIds": [], "securityGroupId": "", "role": ""},
        "nasConfig": {"userId": -1, "groupId": -1, "mountPoints": []},
        "ossMountConfig": {"mountPoints": []},
        "tracingConfig": {"type": None, "params": None},
    }


def test_the_reset_forms_of_the_deploy_tool_are_taken() -> None:
    body = parse(
        UpdateService,
        {
            "role": "",
            "logConfig": {"project": "", "logstore": "", "logBeginRule": "None"},
            "vpcConfig": {"vpcId": "", "vswitchIds": [], "securityGroupId": ""},
            "nasConfig": {"mountPoints": [], "userId": -1, "groupId": -1},
            "ossMountConfig": {"mountPoints": []},
            "tracingConfig": {},
        },
    )

    given = body.given()
    assert given["logConfig"]["logBeginRule"] == "None"
    assert given["tracingConfig"] == {"type": None, "params": None}
    assert "description" not in given


def test_a_function_without_anything_has_the_servers_defaults() -> None:
    config = parse(CreateFunction, FUNCTION).config()

    assert (config["timeout"], config["initializationTimeout"], config["memorySize"]) == (3, 3, 128)
    assert (config["instanceType"], config["instanceConcurrency"]) == ("e1", 1)
    assert config["instanceLifecycleConfig"]["preStop"] == {"handler": "", "timeout": 3}
    assert "code" not in config
    assert "functionName" not in config


def test_an_update_gives_only_what_was_sent() -> None:
    body = parse(UpdateFunction, {"functionName": "x", "timeout": 5, "environmentVariables": {}})

    assert body.given() == {"timeout": 5, "environmentVariables": {}}


def test_concurrency_zero_is_one() -> None:
    assert parse(UpdateFunction, {"instanceConcurrency": 0}).given() == {"instanceConcurrency": 1}


@pytest.mark.parametrize(
    ("change", "field", "text"),
    [
        (
            {"functionName": "1st"},
            "functionName",
            (
                "FunctionName doesn't match expected format "
                "(allowed: ^[_a-zA-Z][-_a-zA-Z0-9]*$, actual: '1st')"
            ),
        ),
        ({"functionName": "a\n"}, "functionName", "FunctionName doesn't match expected format"),
        ({"functionName": "a" * 129}, "functionName", "at most 128 characters"),
        ({"functionName": None}, "functionName", "FunctionName is required but not provided"),
        ({"handler": None}, "handler", "Handler is required but not provided"),
        ({"handler": ""}, "handler", "Handler is required but not provided"),
        ({"runtime": "10"}, "runtime", "Runtime is set to an invalid value (allowed: python2.7 | "),
        ({"runtime": 10}, "runtime", "Runtime is set to an invalid value (allowed: string"),
        ({"runtime": "custom-container"}, "runtime", "container images do not run here"),
        (
            {"memorySize": 100},
            "memorySize",
            (
                "MemorySize: ContainerMemory is set to an invalid value. "
                "The value must be a multiple of 64 MB. (actual: '100')."
            ),
        ),
        ({"memorySize": 64}, "memorySize", "MemorySize is set to an invalid value (allowed: 128"),
        ({"memorySize": "128"}, "memorySize", "(allowed: integer, actual: '128')"),
        ({"memorySize": 10**30}, "memorySize", "MemorySize is set to an invalid value"),
        ({"timeout": 0}, "timeout", "Timeout is set to an invalid value (allowed: 1 - 86400"),
        ({"timeout": True}, "timeout", "(allowed: integer, actual: 'True')"),
        ({"instanceConcurrency": 201}, "instanceConcurrency", "InstanceConcurrency is set"),
        ({"diskSize": 1}, "diskSize", "DiskSize is set to an invalid value (allowed: 512 | 10240"),
        ({"cpu": 0.33}, "cpu", "Cpu is set to an invalid value"),
        ({"environmentVariables": {"A": ""}}, "environmentVariables", "^[[:print:]]+$, actual: ''"),
        ({"environmentVariables": {"1": "x"}}, "environmentVariables", "Environment variable key"),
        (
            {"environmentVariables": {"A": 1}},
            "environmentVariables.A",
            "EnvironmentVariables.A is set to an invalid value (allowed: string, actual: '1')",
        ),
        ({"environmentVariables": {"A": "x" * 4096}}, "environmentVariables", "at most 4096 bytes"),
        ({"layers": ["l"] * 6}, "layers", "Layers contains too many values (max: 5, actual: 6)"),
        ({"caPort": 0}, "caPort", "CaPort is set to an invalid value (allowed: 1 - 65535"),
        ({"code": {}}, "code", "Either ossBucketName/ossObjectName or zipFile must be set"),
        ({"code": []}, "code", "Code is set to an invalid value (allowed: object"),
        (
            {"instanceLifecycleConfig": {"preStop": {"handler": "h", "timeout": 91}}},
            "instanceLifecycleConfig.preStop.timeout",
            "InstanceLifecycleConfig.preStop.timeout is set to an invalid value (allowed: 1 - 90",
        ),
        ({"description": "x" * 257}, "description", "at most 256 characters, actual: 257"),
    ],
)
def test_a_bad_function_field_is_named(change: dict[str, Any], field: str, text: str) -> None:
    error = refusal(CreateFunction, {**FUNCTION, **change})

    assert text in str(error)
    assert error.field == field


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"role": "me"}, "Role doesn't match expected format"),
        ({"internetAccess": "yes"}, "InternetAccess is set to an invalid value (allowed: true |"),
        ({"logConfig": {"project": "p"}}, "LogConfig.logstore is required but not provided"),
        ({"logConfig": "p"}, "LogConfig is set to an invalid value (allowed: object, actual: 'p')"),
        ({"vpcConfig": {"vpcId": "v"}}, "VpcConfig.vSwitchIds is required but not provided"),
        ({"nasConfig": {"userId": 65535}}, "NasConfig.userId is set to an invalid value"),
        (
            {"nasConfig": {"mountPoints": [{"serverAddr": "h", "mountDir": "/mnt"}]}},
            "NasConfig.mountPoints.0.serverAddr doesn't match expected format",
        ),
        (
            {"nasConfig": {"mountPoints": [{"serverAddr": "h:/", "mountDir": "/m"}] * 6}},
            "NasConfig.mountPoints contains too many values (max: 5, actual: 6)",
        ),
        ({"tracingConfig": {"type": "Zipkin"}}, "TracingConfig.type is set to an invalid value"),
        ({"tracingConfig": {"type": "Jaeger"}}, "TracingConfig.params.endpoint is required"),
    ],
)
def test_a_bad_service_field_is_named(change: dict[str, Any], text: str) -> None:
    assert text in str(refusal(CreateService, {"serviceName": "s", **change}))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"aliasName": "LATEST"}, "AliasName is set to an invalid value (allowed: any name but"),
        ({"aliasName": "1"}, "AliasName doesn't match expected format"),
        ({"versionId": "LATEST"}, "VersionId doesn't match expected format"),
        ({"versionId": None}, "VersionId is required but not provided"),
        ({"additionalVersionWeight": {"1": 1.5}}, "AdditionalVersionWeight is set to an invalid"),
        ({"additionalVersionWeight": {"1": 0.6, "2": 0.6}}, "a sum of at most 1.0"),
        ({"additionalVersionWeight": {"1": "0.5"}}, "(allowed: number, actual: '0.5')"),
    ],
)
def test_a_bad_alias_field_is_named(change: dict[str, Any], text: str) -> None:
    assert text in str(refusal(CreateAlias, {"aliasName": "prod", "versionId": "1", **change}))


def test_a_version_id_may_come_as_a_number() -> None:
    assert parse(UpdateAlias, {"versionId": 3}).version_id == "3"
    assert parse(CreateTrigger, {
        "triggerName": "t", "triggerType": "x", "triggerConfig": {}, "qualifier": 2,
    }).qualifier == "2"  # fmt: skip


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"maxAsyncRetryAttempts": 9}, "MaxAsyncRetryAttempts is set to an invalid value"),
        ({"maxAsyncEventAgeInSeconds": 0}, "MaxAsyncEventAgeInSeconds is set to an invalid"),
        (
            {"destinationConfig": {"onFailure": {"destination": "http://x"}}},
            "DestinationConfig.onFailure.destination doesn't match expected format",
        ),
    ],
)
def test_a_bad_async_field_is_named(content: dict[str, Any], text: str) -> None:
    assert text in str(refusal(PutAsyncConfig, content))


def test_unset_async_values_read_back_as_null() -> None:
    assert parse(PutAsyncConfig, {"MaxAsyncRetryAttempts": 0}).config() == {
        "destinationConfig": None,
        "maxAsyncEventAgeInSeconds": None,
        "maxAsyncRetryAttempts": 0,
        "statefulInvocation": False,
    }


def test_a_trigger_update_replaces_top_level_keys_and_null_keeps() -> None:
    stored = {"events": ["a"], "filter": {"key": {"prefix": "p"}}, "enable": True}

    assert merged(stored, {"Events": ["b"], "filter": None, "enable": False}) == {
        "Events": ["b"],
        "filter": {"key": {"prefix": "p"}},
        "enable": False,
    }


def test_fields_that_do_not_fit_together_are_refused() -> None:
    config = parse(CreateFunction, {**FUNCTION, "instanceType": "c1"}).config()
    assert "Memory is set to an invalid value (allowed: 4096 | 8192" in (
        check_together(config) or ""
    )

    config = parse(CreateFunction, {**FUNCTION, "instanceSoftConcurrency": 2}).config()
    assert "InstanceSoftConcurrency" in (check_together(config) or "")
