"""Servers that several rooms of tests share: each is a plugin, and starts only for a test that asks for it."""

pytest_plugins = ["tests.servers.hdfs", "tests.servers.s3"]
