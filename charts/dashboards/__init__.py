"""Grafana dashboards as code: `python -m charts.dashboards` writes them to charts/basketweave/dashboards/*.json.

A dashboard is a list of rows, a row a list of panels, a panel its queries; panels.py turns them into Grafana 11's JSON.
A test fails where a file is stale, where a query names a metric that nobody exports, and where a metric of ours has no
panel.
"""
