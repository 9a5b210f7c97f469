"""``CreateFunction`` and ``UpdateFunction``. FC 2016-08-15, "Function"."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from eventd.api.runtimes import check_runtime
from eventd.api.schemas.fields import (
    Description,
    FcObject,
    Name,
    at_most,
    between,
    invalid,
    mismatch,
    refuse,
    text,
)

MAX_ENVIRONMENT_BYTES = 4096
C1_MEMORY_MB = (4096, 8192, 16384, 32768)

_ENV_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ENV_VALUE = re.compile(r"[ -~]+")  # [[:print:]] of the service's own expression
_INSTANCE_TYPES = ("e1", "c1", "g1", "fc.gpu.tesla.1", "fc.gpu.ampere.1", "fc.gpu.ada.1")


def _runtime(value: str) -> str:
    problem = check_runtime(value)
    if problem:
        raise refuse(problem)
    return value


def _memory(value: int) -> int:
    if value % 64:
        raise refuse(
            "{Field}: ContainerMemory is set to an invalid value. The value must be a multiple of "
            f"64 MB. (actual: '{value}')."
        )
    if not 128 <= value <= 32768:
        raise invalid("128 - 32768, multiple of 64", value)
    return value


def _environment(value: dict[str, str]) -> dict[str, str]:
    for key, item in value.items():
        if not _ENV_KEY.fullmatch(key):
            raise refuse(
                "{Field}: Environment variable key doesn't match expected format "
                f"(allowed: ^[A-Za-z][A-Za-z0-9_]*$, actual: '{key[:200]}')"
            )
        if not _ENV_VALUE.fullmatch(item):
            raise refuse(
                f"{{Field}}.{key}: Environment variable value doesn't match expected format "
                f"(allowed: ^[[:print:]]+$, actual: '{item[:200]}')"
            )
    size = sum(len(key) + len(item) for key, item in value.items())
    if size > MAX_ENVIRONMENT_BYTES:
        raise refuse(
            "{Field} is set to an invalid value (allowed: at most "
            f"{MAX_ENVIRONMENT_BYTES} bytes of keys and values, actual: {size})"
        )
    return value


def _cpu(value: float) -> float:
    if not 0.05 <= value <= 16 or abs(value / 0.05 - round(value / 0.05)) > 1e-6:
        raise invalid("0.05 - 16, multiple of 0.05", value)
    return value


def _disk(value: int) -> int:
    if value not in (512, 10240):
        raise invalid("512 | 10240", value)
    return value


def _instance_type(value: str) -> str:
    if value not in _INSTANCE_TYPES:
        raise invalid(" | ".join(_INSTANCE_TYPES), value[:200])
    return value


def _health_path(value: str) -> str:
    if not value.startswith("/"):
        raise mismatch("^/", value[:200])
    return value


class Code(FcObject):
    """Where the package is: inline, or an object of a bucket."""

    zip_file: str | None = None
    oss_bucket_name: str | None = None
    oss_object_name: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if not self.zip_file and not (self.oss_bucket_name and self.oss_object_name):
            raise refuse("{Field}: Either ossBucketName/ossObjectName or zipFile must be set")
        return self


class Hook(FcObject):
    """An empty handler means no hook."""

    handler: Annotated[str, text(128)] = ""
    timeout: Annotated[int, between(1, 90)] = 3


class Lifecycle(FcObject):
    pre_freeze: Hook = Field(default_factory=Hook)
    pre_stop: Hook = Field(default_factory=Hook)


class CustomRuntime(FcObject):
    command: list[str] | None = None
    args: list[str] | None = None


class CustomContainer(FcObject):
    image: Annotated[str, text(1024)] = ""
    command: str = ""
    args: str = ""
    acceleration_type: str = "Default"
    instance_id: str = Field(default="", alias="instanceID")
    web_server_mode: bool = True


class HealthCheck(FcObject):
    http_get_url: Annotated[str, text(2048), AfterValidator(_health_path)]
    initial_delay_seconds: Annotated[int, between(0, 120)] = 0
    period_seconds: Annotated[int, between(1, 120)] = 3
    timeout_seconds: Annotated[int, between(1, 3)] = 1
    failure_threshold: Annotated[int, between(1, 120)] = 3
    success_threshold: Annotated[int, between(1, 120)] = 1


class DnsOption(FcObject):
    name: str
    value: str


class CustomDns(FcObject):
    name_servers: list[str] = Field(default_factory=list)
    searches: list[str] = Field(default_factory=list)
    dns_options: list[DnsOption] = Field(default_factory=list)


class FunctionConfig(FcObject):
    """The writable fields of a function but ``code``; an object that is given replaces all of the
    stored one."""

    description: Description = ""
    runtime: Annotated[str, AfterValidator(_runtime)]
    handler: Annotated[str, text(128, least=1)]
    initializer: Annotated[str, text(128)] = ""
    initialization_timeout: Annotated[int, between(1, 300)] = 3
    timeout: Annotated[int, between(1, 86400)] = 3
    memory_size: Annotated[int, AfterValidator(_memory)] = 128
    cpu: Annotated[float, AfterValidator(_cpu)] | None = None
    disk_size: Annotated[int, AfterValidator(_disk)] = 512
    gpu_memory_size: Annotated[int, between(1024, 24576)] | None = None
    instance_type: Annotated[str, AfterValidator(_instance_type)] = "e1"
    instance_concurrency: Annotated[
        int, between(0, 200), AfterValidator(lambda value: value or 1)
    ] = 1
    instance_soft_concurrency: Annotated[int, between(1, 200)] | None = None
    environment_variables: Annotated[dict[str, str], AfterValidator(_environment)] = Field(
        default_factory=dict
    )
    ca_port: Annotated[int, between(1, 65535)] | None = None
    custom_runtime_config: CustomRuntime | None = None
    custom_container_config: CustomContainer | None = None
    custom_health_check_config: HealthCheck | None = None
    custom_dns: CustomDns | None = Field(default=None, alias="customDNS")
    instance_lifecycle_config: Lifecycle = Field(default_factory=Lifecycle)
    layers: Annotated[list[str], at_most(5)] = Field(default_factory=list)

    def config(self) -> dict[str, Any]:
        config = super().config()
        for key in ("functionName", "code"):
            config.pop(key, None)
        return config


class CreateFunction(FunctionConfig):
    function_name: Name
    code: Code | None = None


class UpdateFunction(FunctionConfig):
    """Every key may be absent and is then kept; ``functionName`` is ignored."""

    # mypy: a required field of the base becomes optional here; `given` never reads the default.
    runtime: Annotated[str, AfterValidator(_runtime)] = ""
    handler: Annotated[str, text(128, least=1)] = ""
    code: Code | None = None


def check_together(config: dict[str, Any]) -> str | None:
    """What is wrong between the fields of a complete config, or ``None``."""
    memory = config["memorySize"]
    if config["instanceType"] == "c1" and memory not in C1_MEMORY_MB:
        allowed = " | ".join(map(str, C1_MEMORY_MB))
        return (
            f"MemorySize: Memory is set to an invalid value (allowed: {allowed}, "
            f"actual: '{memory}')."
        )
    soft = config["instanceSoftConcurrency"]
    if soft is not None and soft > config["instanceConcurrency"]:
        return (
            "InstanceSoftConcurrency is set to an invalid value "
            f"(allowed: 1 - {config['instanceConcurrency']}, actual: '{soft}')"
        )
    return None
