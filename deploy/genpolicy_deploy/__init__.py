"""genpolicy_deploy: run an exported controller on a robot, without torch.

The safety envelope and watchdogs here are software good practice. They are not a certified
safety function (ISO 10218, ISO 13849): keep the robot's own safety controller and a hardware
emergency stop in place.
"""
