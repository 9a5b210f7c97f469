"""Which code runs: qualifier → version (by weight for an alias) → immutable snapshot.

``snapshot`` and ``choose`` are pure. ``Resolver`` keeps their results until the metadata of the
service changes; a warm ``resolve`` is two dictionary look-ups. Source: FC 2.0, "Use versions and
aliases to implement canary release"; the rules are in DESIGN.md section 2, "Version choice".
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from eventd.errors import AliasNotFound, FunctionNotFound, ServiceNotFound, VersionNotFound
from eventd.model.resources import LATEST, Alias, Function, JsonObject
from eventd.model.snapshot import FunctionSnapshot
from eventd.store.interface import Change, Metadata

_RESOLVING_KINDS = frozenset({"service", "function", "version", "alias"})


def snapshot(
    service_config: JsonObject, function: Function, incarnation: str, version: int
) -> FunctionSnapshot:
    """What an instance of ``function`` runs, under the configuration of its service.

    Args:
        version: the version id, 0 for the working copy.
    """
    config = function.config
    log = service_config.get("logConfig") or {}
    cpu = config.get("cpu")
    return FunctionSnapshot(
        service=function.service,
        function=function.name,
        incarnation=incarnation,
        version=version,
        runtime=config["runtime"],
        handler=config["handler"],
        initializer=config.get("initializer") or "",
        memory_mb=int(config.get("memorySize") or 128),
        timeout_s=int(config.get("timeout") or 3),
        initialization_timeout_s=int(config.get("initializationTimeout") or 3),
        instance_concurrency=int(config.get("instanceConcurrency") or 1),
        environment=dict(config.get("environmentVariables") or {}),
        code_digest=function.code_digest,
        code_checksum=function.code_checksum,
        role=service_config.get("role") or "",
        log_project=log.get("project") or "",
        log_store=log.get("logstore") or "",
        internet_access=service_config.get("internetAccess") is not False,
        disk_mb=int(config.get("diskSize") or 512),
        cpu=float(cpu) if cpu else None,
        lifecycle=dict(config.get("instanceLifecycleConfig") or {}),
    )


def weights(alias: Alias) -> tuple[tuple[float, str], ...]:
    """Upper bounds in [0, 1) with their version ids: the additional versions ascending by number,
    each with its share; what lies above the last bound is the alias's own version. An entry that
    names the alias's own version is legal."""
    shares = alias.additional_version_weight or {}
    bounds: list[tuple[float, str]] = []
    bound = 0.0
    for version_id in sorted(shares, key=lambda text: (len(text), text)):
        bound += shares[version_id]
        bounds.append((bound, version_id))
    return tuple(bounds)


def choose(alias: Alias, u: float) -> str:
    """The version id for a draw ``u`` in [0, 1)."""
    for bound, version_id in weights(alias):
        if u < bound:
            return version_id
    return alias.version_id


def draw(key: str) -> float:
    """A number in [0, 1), uniform over keys and always the same for one key, on every node."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return (int.from_bytes(digest, "big") >> 3) / (1 << 53)


@dataclass(frozen=True, slots=True)
class _Split:
    """An alias with weights, ready for a draw."""

    bounds: tuple[tuple[float, str], ...]
    main: str

    def version(self, u: float) -> str:
        for bound, version_id in self.bounds:
            if u < bound:
                return version_id
        return self.main


class Resolver:
    """Resolves calls against ``metadata``; what it returns never changes afterwards, so a call sees
    one version whole, also while one is published. Close it to stop listening for changes."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        # service → (qualifier, function) → snapshot or split; goes whole when the service changes
        self._cache: dict[str, dict[tuple[str, str], FunctionSnapshot | _Split]] = {}
        self._unsubscribe = metadata.subscribe(self._changed)

    def close(self) -> None:
        self._unsubscribe()
        self._cache.clear()

    def resolve(
        self, service: str, qualifier: str, function: str, key: str = ""
    ) -> FunctionSnapshot:
        """The snapshot to run.

        Args:
            qualifier: as called; empty means ``LATEST``.
            key: decides between the versions of a weighted alias; equal keys get equal versions.
        Raises:
            ServiceNotFound, VersionNotFound, AliasNotFound, FunctionNotFound
        """
        try:
            found = self._cache[service][qualifier, function]
        except KeyError:
            found = self._look_up(service, qualifier, function)
        if type(found) is FunctionSnapshot:
            return found
        assert isinstance(found, _Split)
        return self._of_version(service, found.version(draw(key)), function)

    def resolve_again(
        self, service: str, qualifier: str, function: str, key: str, version: int | None
    ) -> FunctionSnapshot:
        """``resolve`` for a retry: stays with ``version`` while the qualifier still names it.

        Raises the errors of ``resolve``.
        """
        if version is not None and self._names(service, qualifier, version):
            return self._of_version(service, str(version) if version else LATEST, function)
        return self.resolve(service, qualifier, function, key)

    def _names(self, service: str, qualifier: str, version: int) -> bool:
        if not qualifier or qualifier == LATEST:
            return version == 0
        if qualifier.isascii() and qualifier.isdigit():
            return int(qualifier) == version
        alias = self._metadata.alias(service, qualifier)
        if alias is None:
            return False
        name = str(version)
        share = (alias.additional_version_weight or {}).get(name, 0.0)
        named = alias.version_id == name or share > 0
        return named and self._metadata.version(service, version) is not None

    def _look_up(self, service: str, qualifier: str, function: str) -> FunctionSnapshot | _Split:
        if not qualifier or qualifier == LATEST or (qualifier.isascii() and qualifier.isdigit()):
            found: FunctionSnapshot | _Split = self._make(service, qualifier or LATEST, function)
        else:
            if self._metadata.service(service) is None:
                raise ServiceNotFound(f"service '{service}' does not exist")
            alias = self._metadata.alias(service, qualifier)
            if alias is None:
                raise AliasNotFound(f"alias '{qualifier}' of service '{service}' does not exist")
            bounds = weights(alias)
            if bounds:
                found = _Split(bounds, alias.version_id)
            else:
                found = self._of_version(service, alias.version_id, function)
        self._cache.setdefault(service, {})[qualifier, function] = found
        return found

    def _of_version(self, service: str, version: str, function: str) -> FunctionSnapshot:
        """By version id or ``LATEST``, through the cache: one snapshot object per version."""
        cached = self._cache.get(service, {}).get((version, function))
        if type(cached) is FunctionSnapshot:
            return cached
        made = self._make(service, version, function)
        self._cache.setdefault(service, {})[version, function] = made
        return made

    def _make(self, service: str, version: str, function: str) -> FunctionSnapshot:
        owner = self._metadata.service(service)
        if owner is None:
            raise ServiceNotFound(f"service '{service}' does not exist")
        if version == LATEST:
            found = self._metadata.function(service, function)
            config, number = owner.config, 0
        else:
            # ids have at most 18 digits: a longer one names nothing, and int() of it is not free
            published = self._metadata.version(service, int(version)) if len(version) < 19 else None
            if published is None:
                raise VersionNotFound(f"version '{version}' of service '{service}' does not exist")
            found = published.functions.get(function)
            config, number = published.service_config, published.version_id
        if found is None:
            raise FunctionNotFound(f"function '{function}' does not exist in service '{service}'")
        return snapshot(config, found, owner.incarnation, number)

    def _changed(self, change: Change) -> None:
        if change.kind in _RESOLVING_KINDS:
            self._cache.pop(change.service, None)
            if change.kind == "service":
                self._cache.pop(change.name, None)
