"""Drivers by name. Each lives in the module of its name, and its SDK is imported when it is built.

Only the arm's process calls this: the control loop never sees a driver.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.device import Device

DRIVERS = {
    "dynamixel": "DynamixelDevice",
    "feetech": "FeetechDevice",
    "lerobot": "LeRobotDevice",
    "ros2": "Ros2Device",
    "ur": "UrDevice",
}
_SHARED = ("joints", "limits", "stop", "rate_hz")  # said elsewhere in the file, passed where wanted


def build(config: ArmConfig) -> Device:
    """The driver of ``config``, not yet connected.

    The keys of ``[driver]`` are the arguments of its class; those named ``joints``, ``limits``,
    ``stop`` and ``rate_hz`` are taken from the rest of the file.

    Raises:
        GenpolicyError: an SDK that is not installed, options it does not understand, other joints,
            or a rate that it cannot keep.
    """
    where = f"robot '{config.driver}'"
    try:
        module = import_module(f"genpolicy_deploy.robots.{config.driver}")
        factory: Any = getattr(module, DRIVERS[config.driver])
        wanted = inspect.signature(factory).parameters
        shared = {name: getattr(config, name) for name in _SHARED if name in wanted}
        device: Device = factory(**shared, **config.options)
    except ImportError as error:
        raise GenpolicyError(
            f"{where}: {error.name or error} is not installed; pip install 'genpolicy[robots]'"
        ) from error
    except TypeError as error:
        raise GenpolicyError(f"{where}: [driver] {error}") from error
    spec = device.spec
    if spec.joints != config.joints:
        raise GenpolicyError(
            f"{where}: joints.names are {', '.join(config.joints)}, the driver's joints are "
            f"{', '.join(spec.joints)}, in this order"
        )
    if config.rate_hz > spec.max_rate_hz:
        raise GenpolicyError(
            f"{where}: rate_hz = {config.rate_hz:g} is more than its protocol carries: at most "
            f"{spec.max_rate_hz:g}"
        )
    if config.limits.effort and not spec.reports_effort:
        raise GenpolicyError(f"{where}: reports no effort: remove joints.effort")
    return device
