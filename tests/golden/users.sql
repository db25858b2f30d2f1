-- Users of runtide. Run it as a user that may manage access, after `runtide migrate`; it may be run again.
-- Nobody can sign in as one of them until you give each a password:
-- ALTER USER runtide_gateway IDENTIFIED WITH sha256_password BY '...' HOST ANY;
-- ALTER USER runtide_sink IDENTIFIED WITH sha256_password BY '...' HOST ANY;
-- ALTER USER runtide_processor IDENTIFIED WITH sha256_password BY '...' HOST ANY;
-- ALTER USER runtide_dashboard IDENTIFIED WITH sha256_password BY '...' HOST ANY;
-- ALTER USER runtide_reader_5944ae849448 IDENTIFIED WITH sha256_password BY '...' HOST ANY;
-- ALTER USER runtide_reader_65b87174be3b IDENTIFIED WITH sha256_password BY '...' HOST ANY;

CREATE SETTINGS PROFILE IF NOT EXISTS runtide_reading SETTINGS readonly = 2 CONST, max_execution_time = 60 MAX 60, max_memory_usage = 4000000000 MAX 4000000000, max_rows_to_read = 5000000000 MAX 5000000000, max_result_rows = 100000000 MAX 100000000, max_concurrent_queries_for_user = 32 CONST;
CREATE SETTINGS PROFILE IF NOT EXISTS runtide_writing SETTINGS max_execution_time = 300 MAX 300, max_memory_usage = 8000000000 MAX 8000000000;
CREATE ROLE IF NOT EXISTS runtide_gateway_role;
CREATE ROLE IF NOT EXISTS runtide_sink_role;
CREATE ROLE IF NOT EXISTS runtide_processor_role;
CREATE ROLE IF NOT EXISTS runtide_dashboard_role;
GRANT SELECT ON runtide.ledger, SELECT ON runtide.events, SELECT ON runtide.points, SELECT ON runtide.runs, SELECT ON runtide.run_rows, SELECT ON runtide.run_changes, SELECT ON runtide.audit_rows TO runtide_gateway_role;
GRANT SELECT ON runtide.points, SELECT ON runtide.samples, SELECT ON runtide.log_lines, SELECT ON runtide.figures, SELECT ON runtide.events, SELECT ON runtide.ledger, SELECT ON runtide.dead_letters, SELECT ON runtide.dead_letter_fates, SELECT ON runtide.audit_rows TO runtide_sink_role;
GRANT INSERT ON runtide.points, INSERT ON runtide.samples, INSERT ON runtide.log_lines, INSERT ON runtide.figures, INSERT ON runtide.events, INSERT ON runtide.ledger, INSERT ON runtide.dead_letters, INSERT ON runtide.dead_letter_fates, INSERT ON runtide.audit_rows TO runtide_sink_role;
GRANT SELECT(query_id, query_kind) ON system.processes TO runtide_sink_role;
GRANT SELECT ON runtide.points, SELECT ON runtide.samples, SELECT ON runtide.log_lines, SELECT ON runtide.figures, SELECT ON runtide.events, SELECT ON runtide.ledger, SELECT ON runtide.dead_letters, SELECT ON runtide.dead_letter_fates, SELECT ON runtide.audit_rows, SELECT ON runtide.coverage, SELECT ON runtide.attempt_rows, SELECT ON runtide.attempt_bounds, SELECT ON runtide.series_tiers, SELECT ON runtide.metric_summary_rows, SELECT ON runtide.step_stats_shards, SELECT ON runtide.sample_windows, SELECT ON runtide.run_rows, SELECT ON runtide.runs, SELECT ON runtide.metrics, SELECT ON runtide.metric_summary, SELECT ON runtide.step_stats, SELECT ON runtide.resources, SELECT ON runtide.logs, SELECT ON runtide.streams, SELECT ON runtide.attempts, SELECT ON runtide.dead_letter_rulings, SELECT ON runtide.environments, SELECT ON runtide.files, SELECT ON runtide.fingerprints, SELECT ON runtide.confusion_matrices, SELECT ON runtide.curves, SELECT ON runtide.curve_areas, SELECT ON runtide.histograms, SELECT ON runtide.images, SELECT ON runtide.metric_definitions, SELECT ON runtide.run_metrics, SELECT ON runtide.audit, SELECT ON runtide.run_changes, SELECT ON runtide.deleted_runs, SELECT ON runtide.comments, SELECT ON runtide.claims, SELECT ON runtide.saved_views, SELECT ON runtide.experiment_runs, SELECT ON runtide.experiments, SELECT ON runtide.experiment_dependencies TO runtide_processor_role;
GRANT INSERT ON runtide.coverage, INSERT ON runtide.attempt_rows, INSERT ON runtide.attempt_bounds, INSERT ON runtide.series_tiers, INSERT ON runtide.metric_summary_rows, INSERT ON runtide.step_stats_shards, INSERT ON runtide.sample_windows, INSERT ON runtide.run_rows TO runtide_processor_role;
GRANT ALTER DELETE ON runtide.attempt_bounds TO runtide_processor_role;
GRANT SELECT ON runtide.points, SELECT ON runtide.samples, SELECT ON runtide.log_lines, SELECT ON runtide.figures, SELECT ON runtide.events, SELECT ON runtide.ledger, SELECT ON runtide.dead_letters, SELECT ON runtide.dead_letter_fates, SELECT ON runtide.audit_rows, SELECT ON runtide.coverage, SELECT ON runtide.attempt_rows, SELECT ON runtide.attempt_bounds, SELECT ON runtide.series_tiers, SELECT ON runtide.metric_summary_rows, SELECT ON runtide.step_stats_shards, SELECT ON runtide.sample_windows, SELECT ON runtide.run_rows, SELECT ON runtide.runs, SELECT ON runtide.metrics, SELECT ON runtide.metric_summary, SELECT ON runtide.step_stats, SELECT ON runtide.resources, SELECT ON runtide.logs, SELECT ON runtide.streams, SELECT ON runtide.attempts, SELECT ON runtide.dead_letter_rulings, SELECT ON runtide.environments, SELECT ON runtide.files, SELECT ON runtide.fingerprints, SELECT ON runtide.confusion_matrices, SELECT ON runtide.curves, SELECT ON runtide.curve_areas, SELECT ON runtide.histograms, SELECT ON runtide.images, SELECT ON runtide.metric_definitions, SELECT ON runtide.run_metrics, SELECT ON runtide.audit, SELECT ON runtide.run_changes, SELECT ON runtide.deleted_runs, SELECT ON runtide.comments, SELECT ON runtide.claims, SELECT ON runtide.saved_views, SELECT ON runtide.experiment_runs, SELECT ON runtide.experiments, SELECT ON runtide.experiment_dependencies TO runtide_dashboard_role;
CREATE USER IF NOT EXISTS runtide_gateway IDENTIFIED WITH no_password HOST NONE DEFAULT DATABASE runtide SETTINGS PROFILE 'runtide_reading';
GRANT runtide_gateway_role TO runtide_gateway;
CREATE USER IF NOT EXISTS runtide_sink IDENTIFIED WITH no_password HOST NONE DEFAULT DATABASE runtide SETTINGS PROFILE 'runtide_writing';
GRANT runtide_sink_role TO runtide_sink;
CREATE USER IF NOT EXISTS runtide_processor IDENTIFIED WITH no_password HOST NONE DEFAULT DATABASE runtide SETTINGS PROFILE 'runtide_writing';
GRANT runtide_processor_role TO runtide_processor;
CREATE USER IF NOT EXISTS runtide_dashboard IDENTIFIED WITH no_password HOST NONE DEFAULT DATABASE runtide SETTINGS PROFILE 'runtide_reading';
GRANT runtide_dashboard_role TO runtide_dashboard;
CREATE ROW POLICY IF NOT EXISTS runtide_all ON runtide.* USING 1 TO runtide_gateway, runtide_sink, runtide_processor, runtide_dashboard;
CREATE USER IF NOT EXISTS runtide_reader_5944ae849448 IDENTIFIED WITH no_password HOST NONE DEFAULT DATABASE runtide SETTINGS PROFILE 'runtide_reading';
GRANT runtide_dashboard_role TO runtide_reader_5944ae849448;
CREATE ROW POLICY IF NOT EXISTS runtide_reader_5944ae849448 ON runtide.* USING project = 'vision' TO runtide_reader_5944ae849448;
CREATE USER IF NOT EXISTS runtide_reader_65b87174be3b IDENTIFIED WITH no_password HOST NONE DEFAULT DATABASE runtide SETTINGS PROFILE 'runtide_reading';
GRANT runtide_dashboard_role TO runtide_reader_65b87174be3b;
CREATE ROW POLICY IF NOT EXISTS runtide_reader_65b87174be3b ON runtide.* USING project = 'o\'brien' TO runtide_reader_65b87174be3b;
