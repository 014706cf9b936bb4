"""How the steps run under Airflow. The only room that imports airflow, and only in modules that need it."""
