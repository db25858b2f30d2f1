-- What each attempt of a run was: where it ran, which files say what ran, and what has to be equal for two to be the same.
-- All of it lies in events as it was said; a file of several parts is put together here. Without FINAL, which would read the
-- content of every event: what came twice makes no difference in any of them. Each JSON text is parsed once where it can be.

CREATE OR REPLACE VIEW runtide.environments
(
    project      String               COMMENT 'Tenant, from the token',
    run_id       String               COMMENT 'The run',
    attempt      UInt16               COMMENT 'Start of the run',
    time         DateTime64(6, 'UTC') COMMENT 'When it was collected',
    host         String               COMMENT 'Host of rank 0',
    python       String               COMMENT 'Version of the interpreter',
    os           String               COMMENT 'Kernel and C library',
    cpu          String               COMMENT 'Model of the processor',
    cpus         UInt32               COMMENT 'Logical processors of the host',
    memory_bytes UInt64               COMMENT 'Memory of the host',
    gpus         Array(String)        COMMENT 'Models of the NVIDIA devices, in their order',
    driver       String               COMMENT 'Version of the NVIDIA driver; empty where there is none',
    cuda         String               COMMENT 'Version of CUDA that the driver speaks',
    image        String               COMMENT 'Container image, where it can be known',
    scheduler    String               COMMENT 'slurm, pbs, kubernetes ...; empty for none',
    job_id       String               COMMENT 'Id of the job there',
    command      Array(String)        COMMENT 'Command line, secrets masked',
    working_dir  String               COMMENT 'Folder that the job was started in',
    git_commit   String               COMMENT 'Commit that the code was on',
    git_branch   String               COMMENT 'Branch that was checked out',
    git_remote   String               COMMENT 'Where the repository comes from, without user and password',
    git_dirty    Bool                 COMMENT 'Whether tracked files were changed; the view files has the patch',
    packages     Map(String, String)  COMMENT 'Installed Python distributions and their versions',
    variables    Map(String, String)  COMMENT 'Environment variables chosen by RUNTIDE_CAPTURE_ENV, secrets masked',
    notes        Array(String)        COMMENT 'What could not be collected, and why',
    json         String               COMMENT 'All of it, as a JSON object'
)
COMMENT 'What rank 0 of each attempt ran on'
AS SELECT
    project, run_id, attempt, time, host,
    one.python AS python, one.os AS os, one.cpu AS cpu, one.cpus AS cpus, one.memory_bytes AS memory_bytes,
    one.gpus AS gpus, one.driver AS driver, one.cuda AS cuda, one.image AS image, one.scheduler AS scheduler,
    one.job_id AS job_id, one.command AS command, one.working_dir AS working_dir,
    one.git.commit AS git_commit, one.git.branch AS git_branch, one.git.remote AS git_remote, one.git.dirty AS git_dirty,
    JSONExtract(said, 'packages', 'Map(String, String)') AS packages,
    JSONExtract(said, 'variables', 'Map(String, String)') AS variables, one.notes AS notes, said AS json
FROM
(
    SELECT
        project, run_id, attempt, time, host, said,
        JSONExtract(said, 'Tuple(python String, os String, cpu String, cpus UInt32, memory_bytes UInt64, gpus Array(String), driver String, cuda String, image String, scheduler String, job_id String, command Array(String), working_dir String, notes Array(String), git Tuple(commit String, branch String, remote String, dirty Bool))') AS one
    FROM
    (
        SELECT project, run_id, attempt, time, host, JSONExtractString(json, 'json') AS said
        FROM runtide.events
        WHERE kind = 'environment'
        ORDER BY time, stream, offset
        LIMIT 1 BY project, run_id, attempt
    )
);

CREATE OR REPLACE VIEW runtide.files
(
    project   String               COMMENT 'Tenant, from the token',
    run_id    String               COMMENT 'The run',
    attempt   UInt16               COMMENT 'Start of the run',
    kind      String               COMMENT 'entry, notebook, patch (uncommitted changes), untracked, config, lock',
    path      String               COMMENT 'Below the root of the repository where it lies there; empty: more files than are named',
    time      DateTime64(6, 'UTC') COMMENT 'When it was read; of a file that was said again the latest counts',
    digest    String               COMMENT 'SHA-256 of the file as it was, in hex; empty where it was not read',
    size      UInt64               COMMENT 'Bytes of the file as it was',
    content   String               COMMENT 'Content, secrets masked',
    truncated Bool                 COMMENT 'Whether content is not all of it',
    note      String               COMMENT 'What was left out or masked, and why'
)
COMMENT 'Files that say what ran, as rank 0 of each attempt found them'
AS SELECT
    project, run_id, attempt, file_kind AS kind, file_path AS path, time, file_digest AS digest, file_size AS size,
    arrayStringConcat(arrayMap(x -> x.2, arraySort(x -> x.1, pieces))) AS content,
    file_cut OR arrived < parts AS truncated,
    if(arrived < parts, 'a part of it has not arrived', file_note) AS note
FROM
(
    SELECT
        project, run_id, attempt, stream, time, one.kind AS file_kind, one.path AS file_path,
        any(one.digest) AS file_digest, any(one.size) AS file_size, any(one.truncated) AS file_cut,
        any(one.note) AS file_note, any(one.parts) AS parts, uniqExact(one.part) AS arrived,
        groupUniqArray((one.part, piece)) AS pieces
    FROM
    (
        SELECT
            project, run_id, attempt, stream, time,
            JSONExtract(json, 'Tuple(path String, kind String, digest String, size UInt64, truncated Bool, note String, part UInt32, parts UInt32)') AS one,
            base64Decode(JSONExtractString(json, 'content')) AS piece
        FROM runtide.events
        WHERE kind = 'source_file'
    )
    GROUP BY project, run_id, attempt, stream, time, file_kind, file_path
    ORDER BY time DESC, stream DESC
    LIMIT 1 BY project, run_id, attempt, file_kind, file_path
);

CREATE OR REPLACE VIEW runtide.fingerprints
(
    project     String COMMENT 'Tenant, from the token',
    run_id      String COMMENT 'The run',
    attempt     UInt16 COMMENT 'Start of the run',
    code        String COMMENT 'Of commit, uncommitted changes, entry and untracked Python files; empty where none is known',
    config      String COMMENT 'Of the configuration, as it was at the end; empty where there is none',
    data        String COMMENT 'Of roles and digests of the datasets; empty where there is none',
    environment String COMMENT 'Of interpreter, packages and device models'
)
COMMENT 'SHA-256 in hex of what has to be equal for two runs to be the same'
AS SELECT
    project, run_id, attempt,
    argMaxIf(one.code, (time, offset), one.code != '') AS code,
    argMaxIf(one.config, (time, offset), one.config != '') AS config,
    multiIf(
        countIf(one.data != '') > 0, argMaxIf(one.data, (time, offset), one.data != ''),
        countIf(kind = 'dataset_use') = 0, '',
        lower(hex(SHA256(arrayStringConcat(arraySort(
            groupUniqArrayIf(concat(one.role, ' ', one.digest), kind = 'dataset_use')
        ), '\n'))))
    ) AS data,
    argMaxIf(one.environment, (time, offset), one.environment != '') AS environment
FROM
(
    SELECT
        project, run_id, attempt, time, offset, kind,
        JSONExtract(json, 'Tuple(code String, config String, data String, environment String, role String, digest String)') AS one
    FROM runtide.events
    WHERE kind IN ('fingerprint', 'dataset_use')
)
GROUP BY project, run_id, attempt;
