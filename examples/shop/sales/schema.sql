create table orders (
  id text primary key,
  article text not null,
  pieces integer,
  cents bigint,
  status text not null,
  reason text
);

create table articles (
  article text primary key,
  placed integer not null,
  shipped integer not null,
  cancelled integer not null,
  pieces integer not null,
  cents bigint not null
);
