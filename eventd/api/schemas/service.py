"""``CreateService`` and ``UpdateService``. FC 2016-08-15, "Service"."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from eventd.api.schemas.fields import (
    Description,
    FcObject,
    Name,
    at_most,
    between,
    matching,
    one_of,
    refuse,
    text,
)

ROLE_PATTERN = "^(acs:ram::[0-9]*:role/.+)?$"
_USER_ID = between(-1, 65534)
_MAX_MOUNTS = at_most(5)
_DIRECTORY = matching("^/[^\\x00]*$")


class LogConfig(FcObject):
    """Where logs go; both names empty: nowhere."""

    project: Annotated[str, text(128)] = ""
    logstore: Annotated[str, text(128)] = ""
    enable_request_metrics: bool = False
    enable_instance_metrics: bool = False
    log_begin_rule: Annotated[str, one_of("None", "DefaultRegex")] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.project) != bool(self.logstore):
            missing = "logstore" if self.project else "project"
            raise refuse(f"{{Field}}.{missing} is required but not provided")
        return self


class VpcConfig(FcObject):
    vpc_id: str = ""
    v_switch_ids: list[str] = Field(default_factory=list)
    security_group_id: str = ""
    role: str = ""

    @model_validator(mode="after")
    def _whole_or_empty(self) -> Self:
        given = {
            "vpcId": self.vpc_id,
            "vSwitchIds": self.v_switch_ids,
            "securityGroupId": self.security_group_id,
        }
        missing = [name for name, value in given.items() if not value]
        if missing and len(missing) < len(given):
            raise refuse(f"{{Field}}.{missing[0]} is required but not provided")
        return self


class NasMount(FcObject):
    server_addr: Annotated[str, matching("^[^:/]+:/.*$")]
    mount_dir: Annotated[str, _DIRECTORY]
    enable_tls: bool | None = Field(default=None, alias="enableTLS")


class NasConfig(FcObject):
    user_id: Annotated[int, _USER_ID] = -1
    group_id: Annotated[int, _USER_ID] = -1
    mount_points: Annotated[list[NasMount], _MAX_MOUNTS] = Field(default_factory=list)


class OssMount(FcObject):
    bucket_name: Annotated[str, text(63, least=1)]
    mount_dir: Annotated[str, _DIRECTORY]
    bucket_path: str = "/"
    endpoint: str
    read_only: bool = False


class OssMountConfig(FcObject):
    mount_points: Annotated[list[OssMount], _MAX_MOUNTS] = Field(default_factory=list)


class TracingConfig(FcObject):
    """``{}`` switches tracing off."""

    type: Annotated[str, one_of("Jaeger")] | None = None
    params: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _jaeger_needs_an_endpoint(self) -> Self:
        if self.type and not isinstance((self.params or {}).get("endpoint"), str):
            raise refuse("{Field}.params.endpoint is required but not provided")
        return self


class ServiceConfig(FcObject):
    """The writable fields of a service. An object that is given replaces the stored one."""

    description: Description = ""
    role: Annotated[str, matching(ROLE_PATTERN, max_length=300)] = ""
    internet_access: bool = True
    log_config: LogConfig = Field(default_factory=LogConfig)
    vpc_config: VpcConfig = Field(default_factory=VpcConfig)
    nas_config: NasConfig = Field(default_factory=NasConfig)
    oss_mount_config: OssMountConfig = Field(default_factory=OssMountConfig)
    tracing_config: TracingConfig = Field(default_factory=TracingConfig)

    def config(self) -> dict[str, Any]:
        """``logBeginRule`` and ``enableTLS`` are answered only if they were sent."""
        config = super().config()
        config.pop("serviceName", None)
        if config["logConfig"]["logBeginRule"] is None:
            del config["logConfig"]["logBeginRule"]
        for mount in config["nasConfig"]["mountPoints"]:
            if mount["enableTLS"] is None:
                del mount["enableTLS"]
        return config


class CreateService(ServiceConfig):
    service_name: Name


class UpdateService(ServiceConfig):
    """Every key may be absent and is then kept; ``serviceName`` is ignored."""
