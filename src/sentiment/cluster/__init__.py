"""A Ray cluster: connection, resources and versions of its nodes. Ray is an optional extra."""
