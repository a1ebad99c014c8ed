// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"slices"
	"testing"
)

func TestReasons(t *testing.T) {
	tests := []struct {
		name      string
		pre, post string
		of        string // of the group of this
		want      []string
	}{
		{"taken in one function, given back in another",
			"void opens(struct s *x) { x->a = 1; }\nvoid closes(struct s *x) { x->a = 0; }\n",
			"void opens(struct s *x) { s_get(x); x->a = 1; }\nvoid closes(struct s *x) { x->a = 0; s_put(x); }\n",
			"opens", []string{CodeBalance}},
		{"no longer taken, no longer given back",
			"void opens(struct s *x) { kref_get(&x->ref); }\nvoid closes(struct s *x) { kref_put(&x->ref, done); }\n",
			"void opens(struct s *x) { }\nvoid closes(struct s *x) { }\n",
			"closes", []string{CodeBalance}},
		{"memory of a member",
			"void opens(struct s *x) { }\nvoid closes(struct s *x) { }\n",
			"void opens(struct s *x) { x->buf = kzalloc(8, GFP_KERNEL); }\nvoid closes(struct s *x) { kfree(x->buf); }\n",
			"closes", []string{CodeBalance}},
		{"taken and given back in one function",
			"void f(struct s *x) { x->a = 1; }\n",
			"void f(struct s *x) { s_get(x); x->a = 1; s_put(x); }\n", "f", nil},
		{"a path that forgot to give back",
			"int f(struct s *x) { s_get(x); if (x->bad) return 1; s_put(x); return 0; }\nint g(struct s *x) { return 1; }\n",
			"int f(struct s *x) { s_get(x); if (x->bad) { s_put(x); return 1; } s_put(x); return 0; }\nint g(struct s *x) { s_get(x); return 1; }\n",
			"f", nil},
		{"netlink attributes are not held",
			"void f(struct s *x) { }\nvoid g(struct s *x) { }\n",
			"void f(struct s *x) { x->a = nla_get_u32(x->b); }\nvoid g(struct s *x) { nla_put_u32(x->b, 1, x->a); }\n", "f", nil},
		{"order of locks",
			"void f(struct s *x) { mutex_lock(&x->a); mutex_lock(&x->b); mutex_unlock(&x->b); mutex_unlock(&x->a); }\n",
			"void f(struct s *x) { mutex_lock(&x->b); mutex_lock(&x->a); mutex_unlock(&x->a); mutex_unlock(&x->b); }\n",
			"f", []string{CodeLocks}},
		{"locks that were not nested",
			"void f(struct s *x) { spin_lock(&x->a); spin_unlock(&x->a); spin_lock(&x->b); spin_unlock(&x->b); }\n",
			"void f(struct s *x) { spin_lock(&x->a); spin_lock(&x->b); spin_unlock(&x->b); spin_unlock(&x->a); }\n",
			"f", []string{CodeLocks}},
		{"another lock",
			"void f(struct s *x) { spin_lock(&x->a); x->n = 1; spin_unlock(&x->a); }\n",
			"void f(struct s *x) { spin_lock(&x->b); x->n = 1; spin_unlock(&x->b); }\n",
			"f", []string{CodeLocks}},
		{"a lock for a read side section",
			"void f(struct s *x) { mutex_lock(&x->m); x->n = 1; mutex_unlock(&x->m); }\n",
			"void f(struct s *x) { rcu_read_lock(); x->n = 1; rcu_read_unlock(); }\n",
			"f", []string{CodeLocks}},
		{"the same lock taken otherwise",
			"void f(struct s *x) { spin_lock(&x->a); x->n = 1; spin_unlock(&x->a); }\n",
			"void f(struct s *y) { unsigned long flags; spin_lock_irqsave(&y->a, flags); y->n = 1; spin_unlock_irqrestore(&y->a, flags); }\n",
			"f", nil},
		{"a lock more",
			"void f(struct s *x) { x->n = 1; }\n",
			"void f(struct s *x) { guard(mutex)(&x->m); x->n = 1; }\n", "f", nil},
		{"another value",
			"#define LIMIT 8\nint f(int x) { return x; }\n", "#define LIMIT 16\nint f(int x) { return x < LIMIT; }\n",
			"f", []string{CodeConstant}},
		{"another value in a changed statement",
			"#define LIMIT 8\nint f(int x) { return x < LIMIT; }\n", "#define LIMIT 16\nint f(int x) { return x <= LIMIT; }\n",
			"f", []string{CodeConstant}},
		{"the same value in another spelling",
			"#define FLAG 0x10\nint f(int x) { return x; }\n", "#define FLAG (1 << 4)\nint f(int x) { return x & FLAG; }\n", "f", nil},
		{"the same value by another constant",
			"#define FLAG 0x10\nint f(int x) { return x; }\n", "#define SHIFT 4\n#define FLAG BIT(SHIFT)\nint f(int x) { return x & FLAG; }\n", "f", nil},
		{"the same value of a type with another complement",
			"#define FLAG 0x10\nint f(int x) { return x; }\n", "#define FLAG 0x10U\nlong f(long x) { return x & ~FLAG; }\n", "f", []string{CodeConstant}},
		{"a constant of an enum with another value",
			"enum e {\n\tA,\n\tB,\n};\nint f(int x) { return x; }\n", "enum e {\n\tZ,\n\tA,\n\tB,\n};\nint f(int x) { return x == B; }\n", "f", []string{CodeConstant}},
		{"a new constant of an enum",
			"enum e {\n\tA,\n\tB,\n};\nint f(int x) { return x; }\n", "enum e {\n\tA,\n\tB,\n\tC,\n};\nint f(int x) { return x == C; }\n", "f", []string{CodeConstant}},
		{"body of a thread",
			"static int body(void *data) { while (!kthread_should_stop()) work(); return 0; }\n",
			"static int body(void *data) { while (!kthread_should_stop()) rest(); return 0; }\n", "body", []string{CodeRunning}},
		{"body of a thread that another function starts",
			"static int body(void *data) { work(data); return 0; }\nint begin(void) { kthread_run(body, 0, \"x\"); return 0; }\n",
			"static int body(void *data) { rest(data); return 0; }\nint begin(void) { kthread_run(body, 0, \"x\"); return 1; }\n", "body", []string{CodeRunning}},
		{"a loop without an end",
			"void f(void) { for (;;) { switch (next()) { case 1: break; } } }\n", "void f(void) { for (;;) { switch (next()) { case 2: break; } } }\n", "f", []string{CodeRunning}},
		{"a loop that ends",
			"int f(void) { for (;;) { if (next()) break; } return 0; }\n", "int f(void) { for (;;) { if (next()) break; } return 1; }\n", "f", nil},
		{"a new function runs nowhere",
			"int f(void) { return 0; }\n", "static int body(void *data) { for (;;) { work(); } }\nint f(void) { kthread_run(body, 0, \"x\"); return 0; }\n", "body", nil},
		{"code of the boot that others need",
			"static int ready;\nstatic int __init begin(void) { return 0; }\nint f(int x) { return x; }\n",
			"static int ready, fresh;\nstatic int table[4];\nstatic int __init begin(void) { table[0] = 1; return 0; }\nint f(int x) { return table[x]; }\n", "f", []string{CodeInit}},
		{"new member",
			"struct s {\n\tint a;\n};\nint f(struct s *x) { return 0; }\n", "struct s {\n\tint a;\n\tint b;\n};\nint f(struct s *x) { return x->b; }\n", "f", []string{CodeMember}},
		{"new member in an initialiser",
			"struct s {\n\tint a;\n};\nint f(void) { return 0; }\n", "struct s {\n\tint a;\n\tint b;\n};\nint f(void) { struct s x = { .b = 1 }; return g(&x); }\n", "f", []string{CodeMember}},
		{"member of another type",
			"struct s {\n\tint a;\n};\nvoid f(struct s *x) { x->a = 1; }\n", "struct s {\n\tatomic_t a;\n};\nvoid f(struct s *x) { atomic_set(&x->a, 1); }\n", "f", []string{CodeMember}},
		{"member with another annotation",
			"struct s {\n\tint *a;\n};\nvoid f(struct s *x) { x->a = p; }\n", "struct s {\n\tint __rcu *a;\n};\nvoid f(struct s *x) { rcu_assign_pointer(x->a, p); }\n", "f", nil},
		{"new member within an anonymous one",
			"struct s {\n\tint a;\n};\nint f(struct s *x) { return 0; }\n", "struct s {\n\tint a;\n\tunion {\n\t\tstruct {\n\t\t\tint inner;\n\t\t};\n\t\tlong l;\n\t};\n};\nint f(struct s *x) { return x->inner; }\n", "f", []string{CodeMember}},
		{"typedef of another type",
			"typedef int num_t;\nint f(void) { return 0; }\n", "typedef long num_t;\nint f(void) { num_t x = 1; return x; }\n", "f", []string{CodeType}},
		{"table with a new function",
			"static const struct ops o = {\n\t.a = f,\n};\n", "static int g(void) { return 0; }\nstatic const struct ops o = {\n\t.a = f,\n\t.b = g,\n};\n", "g", []string{CodeData}},
		{"variable of another type",
			"static int state;\nint f(void) { return state; }\n", "static long state;\nint f(void) { return state + 1; }\n", "f", []string{CodeData}},
		{"variable with another annotation",
			"static int state = 0;\nint f(void) { return state; }\n", "static int state __read_mostly;\nint f(void) { return state + 1; }\n", "state", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list := changes(t, map[string]string{"k/a.c": tt.pre}, map[string]string{"k/a.c": tt.post})
			g := New(list, Options{})
			var got []string
			for _, r := range g.Group(named(t, list, tt.of)).Reasons {
				if !slices.Contains(got, r.Code) {
					got = append(got, r.Code)
				}
				if r.What == "" || r.Detail == "" || r.Entity == nil {
					t.Errorf("reason %+v does not name something", r)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("reasons %v, want %v (%v)", g.Group(named(t, list, tt.of)).Reasons, tt.want, names(g.Groups()))
			}
		})
	}
}

// What speaks against a change can stand in the text that did not change.
func TestUnchangedText(t *testing.T) {
	pre := "static int body(void *data) { work(data); return 0; }\nstatic int setup_it(void) { return 0; }\n"
	post := "static int body(void *data) { rest(data); return 0; }\nstatic int setup_it(void) { return 1; }\n"
	list := changes(t, map[string]string{"a.c": pre}, map[string]string{"a.c": post})
	g := New(list, Options{Text: func(file string, _ bool) string {
		return pre + "int begin(void) { kthread_create_on_node(body, 0, 0, \"x\"); }\nlate_initcall(setup_it);\n"
	}})
	if r := g.Group(named(t, list, "body")).Reasons; len(r) != 1 || r[0].Code != CodeRunning {
		t.Errorf("reasons %v", r)
	}
	if gr := g.Group(named(t, list, "setup_it")); !gr.Boot || len(gr.Reasons) != 0 {
		t.Errorf("group %+v is not one of the boot", gr)
	}
	for _, gr := range Make(list) {
		if gr.Boot || len(gr.Reasons) != 0 {
			t.Errorf("group %+v without the text", gr)
		}
	}
}

func TestMovedData(t *testing.T) {
	list := changes(t, map[string]string{"a.c": "static int counter;\n", "b.c": "int k;\n"}, map[string]string{"a.c": "int l;\n", "b.c": "static int counter;\n"})
	gr := New(list, Options{}).Group(named(t, list, "counter"))
	if len(gr.Entities) != 2 || len(gr.Reasons) != 1 || gr.Reasons[0].Code != CodeData {
		t.Errorf("group %+v", gr)
	}
}
