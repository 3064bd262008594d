"""What several rooms of tests share: servers, each of which starts only for a test that asks for it, and figures."""

pytest_plugins = ["tests.figures", "tests.order", "tests.servers.hdfs", "tests.servers.s3", "tests.tracing"]
